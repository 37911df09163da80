"""Control side: command line, matrix, scheduling, providers, transports, facts and capsules."""
