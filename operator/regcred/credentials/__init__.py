"""How a registry entry gets its login: providers, renewal, proof, and the last good one kept."""
