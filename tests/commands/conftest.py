from loaded_once import models_are_loaded_once  # noqa: F401
