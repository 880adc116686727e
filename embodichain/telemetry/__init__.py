"""Telemetry: metrics to MLflow, the live view, the report. MLflow and Ray are imported on use."""

from embodichain.telemetry.live import LiveView, Snapshot
from embodichain.telemetry.logger import LoggerConfig, RunLogger
from embodichain.telemetry.logger_actor import LoggerHandle, start_logger
from embodichain.telemetry.metrics import METRIC_UNITS, MetricBuffer, MetricPoint, success_metrics
from embodichain.telemetry.report import write_report

__all__ = [
    "METRIC_UNITS",
    "LiveView",
    "LoggerConfig",
    "LoggerHandle",
    "MetricBuffer",
    "MetricPoint",
    "RunLogger",
    "Snapshot",
    "start_logger",
    "success_metrics",
    "write_report",
]
