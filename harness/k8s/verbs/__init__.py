"""What ``airlock k8s`` can be told to do, a module each: ``arguments(parser)``, ``run(args)``."""
