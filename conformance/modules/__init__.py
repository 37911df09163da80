"""Kernel modules: present, signed once by us, for the boot kernel, judged by the kernel."""
