"""What pipelines are assembled from, beside the transforms: options, writing, the report."""
