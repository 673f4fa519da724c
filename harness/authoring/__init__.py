"""For authors of methods and tasks: scaffold, check, its rules, the catalog of what is registered."""
