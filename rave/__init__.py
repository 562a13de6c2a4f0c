"""RAVE: audio ⇄ about 21 latent frames a second (Caillon & Esling 2021, arXiv:2111.05011)."""
