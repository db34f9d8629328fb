"""Stand-ins for ECS and its object store, for the demo, tests and integrators."""
