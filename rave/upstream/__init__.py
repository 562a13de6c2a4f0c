"""Runs of acids-rave: opened as they are, and written from ours.

RUN/config.gin                            settings, read as data: nothing is imported
RUN/version_N/checkpoints/NAME.ckpt       weights, read without running code
"""
