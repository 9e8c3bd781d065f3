"""Package metadata and extras of Fabric Beam."""

from pathlib import Path

from setuptools import find_packages, setup

EXTRAS = {
    "cassandra": ["cassandra-driver>=3.29,<4"],
    "flink": ["apache-flink==2.3.0; python_version < '3.13'"],
    "spark": ["pyspark>=4.1,<5"],
    "kafka": ["confluent-kafka>=2.6,<3"],
    "mongodb": ["pymongo>=4.9,<5"],
    "pinot": ["confluent-kafka>=2.6,<3"],
    "redis": ["redis>=5,<8"],
    "sklearn": ["scikit-learn>=1.5"],
}

setup(
    name="fabric-beam",
    version="0.1.0",
    description="Apache Beam pipelines for logs and metrics, on Arrow record batches",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["fabric_beam*", "transforms*", "pipelines*"]),
    package_data={"": ["py.typed", "*.html", "*.java", "*.xml", "*.yaml", "*.css", "*.js"]},
    install_requires=[
        "apache-beam[gcp]>=2.61,<3",
        "cachetools>=5",
        "circuitbreaker>=2",
        "jinja2>=3",
        "numba>=0.61",
        "numpy>=2",
        "polars>=2",
        "pyarrow>=16.1,<26",
        "pyyaml>=6",
        "requests>=2.31",
        "rich>=13",
        "tenacity>=8.2",
        "zstandard>=0.22",
    ],
    extras_require={**EXTRAS, "all": sorted({spec for extra in EXTRAS.values() for spec in extra})},
)
