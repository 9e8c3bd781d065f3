"""Rows looked up by key while a pipeline runs: in a table, or in a store whose answers are remembered."""
