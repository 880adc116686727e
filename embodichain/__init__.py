"""EmbodiChain-online: an online simulation data engine for robot learning."""
