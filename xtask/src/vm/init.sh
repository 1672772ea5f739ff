#!/bin/busybox sh
# The virtual machine's first and only process group: drivers, network, the data disk, a reader, the agent.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for name in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk failover net_failover virtio_net; do
    insmod /drivers/$name.ko
done
# Opened by nobody, it does nothing.
insmod /drivers/watchdog.ko
insmod /drivers/softdog.ko soft_margin=15
mount -t ext4 /dev/vda /data
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.2.2
echo "booted in $(cut -d' ' -f1 /proc/uptime) s"
parameters=/sys/module/hotswap_gate/parameters
# Calls through the gate all the time, from the first that is served on.
(
    served=0 unserved=0
    while :; do
        if read -r answer < $parameters/call; then
            served=$((served + 1))
            of=${answer%% *}
        elif [ $served -gt 0 ]; then
            unserved=$((unserved + 1))
        fi 2> /dev/null
        if [ $(((served + unserved) % 20)) = 0 ]; then
            echo "$served $unserved $of" > /tmp/reader
            [ $served = 0 ] && sleep 0.1
        fi
    done 2> /dev/null
) &
(
    while :; do
        read -r reader < /tmp/reader
        read -r plain < /sys/module/hotswap_plain/parameters/version || plain=none
        read -r line < /proc/cmdline
        echo "state: reader=[$reader] plain=[$plain] cmdline=[$line]"
        sleep 0.3
    done 2> /dev/null
) &
set -o pipefail
while :; do
    # Through a pipe, so that its log is JSON.
    LD_LIBRARY_PATH=/data/lib /data/lib/ld-linux-x86-64.so.2 /data/hotswap agent $(cat /data/arguments) 2>&1 | cat
    echo "the agent ended with $?"
    sleep 1
done
