"""The schemes of URLs, and what serves them; a scheme is one line here and one file or folder in `fabric_beam/io/`."""

#: Scheme → the class that reads it, `module:class`. What has no scheme of ours is a path or glob of text files.
SOURCES = {
    "cassandra": "fabric_beam.io.cassandra.source:ReadCassandra",
    "kafka": "fabric_beam.io.kafka.source:ReadKafka",
    "lines": "fabric_beam.io.lines:ReadLines",
    "mongodb": "fabric_beam.io.mongodb.source:ReadMongoDB",
    "mongodb+srv": "fabric_beam.io.mongodb.source:ReadMongoDB",
    "parquet": "fabric_beam.io.parquet:ReadParquet",
    "redis": "fabric_beam.io.redis.source:ReadRedis",
    "rediss": "fabric_beam.io.redis.source:ReadRedis",
}
#: Scheme → the class that writes it.
SINKS = {
    "cassandra": "fabric_beam.io.cassandra.sink:WriteCassandra",
    "jsonl": "fabric_beam.io.jsonl:WriteJsonLines",
    "kafka": "fabric_beam.io.kafka.sink:WriteKafka",
    "mongodb": "fabric_beam.io.mongodb.sink:WriteMongoDB",
    "mongodb+srv": "fabric_beam.io.mongodb.sink:WriteMongoDB",
    "parquet": "fabric_beam.io.parquet:WriteParquet",
    "pinot": "fabric_beam.io.pinot.sink:write_pinot",
    "redis": "fabric_beam.io.redis.sink:WriteRedis",
    "rediss": "fabric_beam.io.redis.sink:WriteRedis",
    "stdout": "fabric_beam.io.stdout:WriteStdout",
}
#: Scheme → the class that looks rows up in it by key.
LOOKUPS = {
    "cassandra": "fabric_beam.io.cassandra.lookup:CassandraLookup",
    "http": "fabric_beam.io.http:HttpLookup",
    "https": "fabric_beam.io.http:HttpLookup",
    "mongodb": "fabric_beam.io.mongodb.lookup:MongoLookup",
    "mongodb+srv": "fabric_beam.io.mongodb.lookup:MongoLookup",
    "redis": "fabric_beam.io.redis.lookup:RedisLookup",
    "rediss": "fabric_beam.io.redis.lookup:RedisLookup",
}
#: Scheme → the class that keeps what was looked up, for several processes.
SECOND_LEVELS = {
    "redis": "fabric_beam.io.redis.second_level:RedisSecondLevel",
    "rediss": "fabric_beam.io.redis.second_level:RedisSecondLevel",
}
