"""The commands, one file each: parse → load → analyse → visualise. Installed as ``vistool.tools``."""
