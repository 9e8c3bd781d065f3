"""Sources and sinks: one file an endpoint scheme, on top of `files` and `file_sink`."""
