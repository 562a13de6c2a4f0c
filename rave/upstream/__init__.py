"""How are files of acids-rave opened?

RUN/config.gin                            settings, read as data: nothing is imported
RUN/version_N/checkpoints/NAME.ckpt       weights, read without running code
NAME.ts                                   settings and weights, read from its layers
"""
