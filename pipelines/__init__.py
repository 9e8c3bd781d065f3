"""Named pipelines, one file each: `python -m pipelines` lists them."""
