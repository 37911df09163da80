"""The local lab: base images, the build namespace, disks, firmware and virtual machines."""
