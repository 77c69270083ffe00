"""Which candidates are real? One module a learned method, each with ``Parameters`` and ``score``.

A method is found by its module's name: a profile that says ``method = "cnn3d"`` gets ``pipeline.classifiers.cnn3d``.
"""
