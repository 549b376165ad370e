"""What a student costs: columns of tables, each a mean over seeds."""

from lightning_metakd.reporting.markdown import count, duration, milliseconds

COST_COLUMNS = {
    "parameters": ("student_params", count),
    "MACs": ("student_macs", count),
    "FLOPs": ("student_flops", count),
    "latency": ("latency_ms", milliseconds),
    "adapting": ("adapt_ms", milliseconds),
    "training": ("wall_s", duration),
    "teacher forwards": ("teacher_forwards", count),
    "gradients": ("gradient_evaluations", count),
}
"""Key and way of writing of each column."""
