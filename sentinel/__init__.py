"""sentinel: the health-check and failover supervisor for HAProxy + keepalived pairs."""

__version__ = "0.1.0"
