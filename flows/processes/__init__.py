"""Commands in processes of their own, whose whole tree ends with us. Knows neither DVC nor Prefect."""
