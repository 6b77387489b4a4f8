"""What every stage shares: contracts, configuration, stores. Never imports `jobs`."""
