/* net/rules.h -- what the network reads of a run's manifest. */
#ifndef ONEBYTE_NET_RULES_H
#define ONEBYTE_NET_RULES_H
#include <stdbool.h>
#include <stdint.h>

struct net_rules {
    uint8_t run_id[32];
    uint8_t owner[32];
    uint64_t n0, steps, share_65536, burst, records_max;
    uint32_t k;  /* K divides first_seq and count */
    bool sync;   /* pace: sync */
    enum { NET_OPEN, NET_ALLOW, NET_INVITE } admission;
    uint8_t (*allow)[32]; /* [n_allow], borrowed */
    uint32_t n_allow;
};
#endif
