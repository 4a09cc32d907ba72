"""What a machine may know of a domain's service: whether it is well, counts for Prometheus, lines for a log."""

from fedpriv.domain.monitoring.endpoint import Endpoint, serving
from fedpriv.domain.monitoring.service_log import ServiceLog
from fedpriv.domain.monitoring.vitals import Vitals

__all__ = ["Endpoint", "ServiceLog", "Vitals", "serving"]
