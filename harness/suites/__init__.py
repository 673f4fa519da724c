"""Built-in suites; each module registers the path of a YAML file."""
