"""One module a verb: ``arguments(parser)`` and ``run(args)``; imported when the verb is used."""
