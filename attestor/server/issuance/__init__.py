"""From an entitlement to a signature: prepared, its instance known, recorded, signed."""
