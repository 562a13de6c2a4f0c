"""DiffWave over RAVE latents: a diffusion model of music (Kong et al. 2020, arXiv:2009.09761)."""
