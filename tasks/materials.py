"""What things are made of: densities, kg/m^3. `Draws.mass` draws around them."""

FOAM, WOOD, PLASTIC, PVC, STONE, ALUMINIUM = 340.0, 600.0, 1000.0, 1400.0, 3000.0, 2700.0
