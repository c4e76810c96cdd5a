"""A plan for tests of what follows from one."""

from vpt.data.plan import Plan, Window


def plan_with(**changes) -> Plan:
    values = {
        "plane": "axial",
        "pixel_mm": 1.0,
        "image_size": 32,
        "neighbours": True,
        "channels": ("MRI",),
        "intensity": (Window(low=0, high=1),),
    }
    return Plan(**{**values, **changes})
