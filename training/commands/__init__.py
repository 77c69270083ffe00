"""The commands of ``cmbtrain``, one module a subject."""
