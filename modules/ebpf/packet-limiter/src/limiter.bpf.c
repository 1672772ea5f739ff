// SPDX-License-Identifier: MIT OR GPL-2.0-only
// Counts packets that an interface receives, and lets each IPv4 source send so many a second.
//
// A source has a bucket of tokens: a packet takes one, time puts them back. What is counted, and how full each
// bucket is, outlives a version: both maps are carried, so their layouts must stay.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#ifndef VERSION
#error "give -DVERSION=100, 110 or 120"
#endif

#define SECOND 1000000000ULL
// Packets a second of one source, and how many at once.
#define RATE 20000ULL
#define BURST 5000ULL
#define SOURCES_MAX 4096

struct totals {
    __u64 packets;
    __u64 dropped;
    __u64 failed;
    // Since 1.1.0.
    __u64 bytes;
};

struct bucket {
    __u64 tokens;
    __u64 filled_at;
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct totals);
} totals SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, SOURCES_MAX);
    __type(key, __u32);
    __type(value, struct bucket);
} buckets SEC(".maps");

// How many tokens time has put back since the bucket was last filled.
static __always_inline __u64 refill(__u64 elapsed)
{
#if VERSION == 120
    // The slip of 1.2.0: whole seconds only. A source that sends all the time never gets a token back.
    return elapsed / SECOND * RATE;
#else
    if (elapsed >= SECOND)
        return BURST;
    return elapsed * RATE / SECOND;
#endif
}

static __always_inline int may_pass(__u32 source, struct totals *count)
{
    __u64 now = bpf_ktime_get_ns();
    struct bucket *bucket = bpf_map_lookup_elem(&buckets, &source);

    if (!bucket) {
        struct bucket full = { .tokens = BURST - 1, .filled_at = now };

        // Rather a packet too many than a source cut off.
        if (bpf_map_update_elem(&buckets, &source, &full, BPF_ANY))
            count->failed++;
        return 1;
    }
    __u64 more = refill(now - bucket->filled_at);

#if VERSION == 120
    bucket->filled_at = now;
#else
    // Time that was too short for a token counts on.
    if (more)
        bucket->filled_at = now;
#endif
    __u64 tokens = bucket->tokens + more;

    if (tokens > BURST)
        tokens = BURST;
    if (!tokens) {
        bucket->tokens = 0;
        return 0;
    }
    bucket->tokens = tokens - 1;
    return 1;
}

SEC("xdp")
int limit(struct xdp_md *ctx)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    __u32 only = 0;
    struct totals *count = bpf_map_lookup_elem(&totals, &only);

    if (!count)
        return XDP_PASS;
    count->packets++;
#if VERSION >= 110
    count->bytes += end - data;
#endif
    struct ethhdr *ether = data;

    if ((void *)(ether + 1) > end || ether->h_proto != bpf_htons(ETH_P_IP))
        return XDP_PASS;
    struct iphdr *ip = (void *)(ether + 1);

    if ((void *)(ip + 1) > end)
        return XDP_PASS;
    if (may_pass(ip->saddr, count))
        return XDP_PASS;
    count->dropped++;
    return XDP_DROP;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
