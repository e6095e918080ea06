# shellcheck shell=bash disable=SC2154 # sourced, after common.sh
#
# A kubelet sets a few of the kernel's settings to its liking, and in a container it sets them for the whole machine. So
# up.sh writes down how they were before the first cluster, and down.sh puts them back after the last.

HOST_SETTINGS=(vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops
	kernel.keys.root_maxkeys kernel.keys.root_maxbytes)

save_host_settings() {
	local setting file=$CLUSTERS/host-settings
	mkdir -p "$CLUSTERS"
	[[ -e $file ]] && return # a cluster is up, or one was left behind: what is in force is not the machine's own
	for setting in "${HOST_SETTINGS[@]}"; do
		[[ -e /proc/sys/${setting//.//} ]] && echo "$setting=$(<"/proc/sys/${setting//.//}")"
	done >"$file.new"
	# kind mounts this directory into the nodes, and Docker makes it where there is none.
	[[ -e /lib/modules ]] || echo "no /lib/modules" >>"$file.new"
	mv "$file.new" "$file"
}

restore_host_settings() {
	local line file=$CLUSTERS/host-settings
	[[ -e $file ]] || return 0
	while read -r line; do
		case $line in
		"no /lib/modules") rmdir /lib/modules 2>/dev/null || true ;;
		*) echo "${line#*=}" 2>/dev/null >"/proc/sys/$(tr . / <<<"${line%%=*}")" || say "could not set $line again" ;;
		esac
	done <"$file"
	rm "$file"
	say "the kernel's settings are again what they were before the first cluster"
}
