"""Trace points and events (Linux kernel/trace): nothing switches any on."""

from vmklinux.api import no_op

no_op(
    "trace.py",
    "Trace events are off until somebody turns them on, as in Linux; here there is nobody who could. Modules hold"
    " the addresses of these functions in their tables of events.",
    "__trace_trigger_soft_disabled", "trace_event_buffer_reserve", "trace_event_buffer_commit", "trace_event_printf",
    "trace_event_raw_init", "trace_event_reg", "trace_handle_return", "trace_raw_output_prep", "perf_trace_buf_alloc",
    "perf_trace_run_bpf_submit", "trace_print_symbols_seq", "trace_print_flags_seq", "trace_print_bitmask_seq",
    "trace_print_hex_seq", "trace_print_array_seq", "trace_seq_printf", "trace_seq_putc", "trace_seq_puts",
    "trace_define_field", "trace_event_ignore_this_pid", "__trace_bprintk", "__trace_printk", "__trace_bputs",
    "__trace_puts", "do_trace_rdpmc", "do_trace_read_msr", "do_trace_write_msr",
    *(f"bpf_trace_run{arguments}" for arguments in range(1, 13)),
)  # fmt: skip
no_op(
    "trace.py",
    "There are no buffers of events: a driver that wants one of its own gets a null, and logs without it.",
    "trace_array_get_by_name", "trace_array_put", "trace_array_set_clr_event",
)  # fmt: skip
