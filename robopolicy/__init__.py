"""Train robot policies in simulation, refine and judge them in imagination, deploy them over ROS 2."""

__version__ = "0.1.0"
