# Runs its arguments without the version 2 part of a hybrid cgroup hierarchy. It wants a mount
# namespace of its own. Merely unmounting that part would not do: crun then takes the directory
# that was below for a control group, and leaves it behind.
set -e
root=/sys/fs/cgroup
if mountpoint -q $root/unified; then
	old=$(mktemp -d)
	mount --rbind $root "$old"
	mount -t tmpfs tmpfs $root
	for dir in "$old"/*/; do
		name=$(basename "$dir")
		[ "$name" = unified ] && continue
		mkdir "$root/$name"
		mount --bind "$dir" "$root/$name"
	done
	umount -l "$old"
	rmdir "$old"
fi
exec "$@"
