"""Networks: latent spaces, diffusion networks, and the feature networks of losses and scores."""
