"""The configuration: compose it, explain mistakes in it, build the objects that it names."""
