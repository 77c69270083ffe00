"""Which candidates are real? One module per learned method, each with ``Parameters`` and ``score``.

A method is found by its module's name: a profile that says ``method = "cnn3d"`` uses ``pipeline.classifiers.cnn3d``.
"""
