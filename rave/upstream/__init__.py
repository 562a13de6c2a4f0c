"""Runs and .ts files of acids-rave: opened as they are; runs are written from ours, too.

RUN/config.gin                            settings, read as data: nothing is imported
RUN/version_N/checkpoints/NAME.ckpt       weights, read without running code
NAME.ts                                   settings and weights, read off its layers
"""
