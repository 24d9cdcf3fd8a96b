"""The soak: short tokens, churn, rivals, kills and outages for an hour, under the eyes of a continuous reader."""
