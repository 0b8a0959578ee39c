"""visrep: unlabelled images into good detectors and small models."""

__version__ = "0.1.0"
