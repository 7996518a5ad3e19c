"""Lights (Linux drivers/leds): what drivers offer to drive them by, and lights of their own."""

from vmklinux.api import no_op

no_op(
    "leds.py",
    "No light of the machine follows a trigger: registering one succeeds, and its events reach nobody, as in Linux"
    " until somebody chooses it for a light.",
    "led_trigger_register", "led_trigger_unregister", "led_trigger_event", "led_trigger_blink",
    "led_trigger_blink_oneshot", "led_trigger_set_default", "ledtrig_disk_activity",
)  # fmt: skip
no_op(
    "leds.py",
    "A card's lights show what the card makes of them; nobody asks for other light, as in Linux until somebody"
    " writes to sysfs.",
    "led_classdev_register_ext", "led_classdev_unregister", "led_classdev_suspend", "led_classdev_resume",
)  # fmt: skip
