"""How do files of acids-rave open here?

RUN/config.gin                            settings, read as data: nothing is imported
RUN/version_N/checkpoints/NAME.ckpt       weights, read without running code
NAME.ts                                   settings and weights, read off its layers
"""
