"""One module a resource of the API: its routes, and what each asks the engine or the cluster."""
