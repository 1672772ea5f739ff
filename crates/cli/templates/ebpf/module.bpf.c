// Counts the packets that an interface receives, and passes them on.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct totals {
    __u64 packets;
    __u64 dropped;
};

// One value for each processor: nobody waits for anybody.
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct totals);
} totals SEC(".maps");

SEC("xdp")
int count(struct xdp_md *packet)
{
    __u32 only = 0;
    struct totals *count = bpf_map_lookup_elem(&totals, &only);

    if (count)
        count->packets++;
    return XDP_PASS;
}

// Which helpers the kernel lets it call depends on this.
char LICENSE[] SEC("license") = "GPL";
