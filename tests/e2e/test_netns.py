#!/usr/bin/env python3
"""Eight peers, each in a network namespace of its own: loss and a rate limit (nftables, tbf), delay and reordering (netem, where the
kernel has it), a partition that heals, and NAT by nftables.

Everything lives in a private network and mount namespace that ends with this process.  Where namespaces are not allowed
the tests say so and are skipped.
"""
import ctypes
import os
import shutil
import subprocess
import sys

from lib import Skip, main, settle, wait

RUN = ("--n0", 64, "--sides", 1, "--directions", 7, "--segment-max", 28, "--steps", 1000000, "--schedule", "constant",
       "--lr", 0.01)
INSIDE = "ONEBYTE_TEST_NETNS"
CLONE_NEWNET = 0x40000000
PEERS = 8
libc = ctypes.CDLL(None, use_errno=True)


def sh(*commands):
    for c in commands:
        subprocess.run(c.split(), check=True, capture_output=True, timeout=60)


def possible(*commands):
    try:
        sh(*commands)
    except (subprocess.SubprocessError, OSError):
        return False
    return True


def enter_private():
    """Starts this file again inside namespaces of its own; returns only where that is not possible."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    unshare = ["unshare", *user, "--net", "--mount", "--"]
    probe = ("mount -t tmpfs tmpfs /run && ip netns add probe && ip link add br0 type bridge && "
             "ip link add name va type veth peer name vb && ip link set vb netns probe")
    try:
        good = subprocess.run([*unshare, "sh", "-c", probe], capture_output=True, timeout=60).returncode == 0
    except (subprocess.SubprocessError, OSError):
        good = False
    if good:
        os.environ[INSIDE] = "1"
        os.execvp("unshare", [*unshare, "sh", "-c", 'mount -t tmpfs tmpfs /run && exec "$@"', "sh", sys.executable, *sys.argv])


def needs_namespaces():
    if INSIDE not in os.environ:
        raise Skip("namespaces are not possible here")


def network(names):
    """A bridge br0 and, per name, a namespace with 10.9.0.N on it; returns the addresses."""
    sh("ip link set lo up", "ip link add br0 type bridge", "ip link add br1 type bridge", "ip link set br0 up", "ip link set br1 up")
    for i, n in enumerate(names):
        sh(f"ip netns add {n}", f"ip link add v{n} type veth peer name eth0 netns {n}", f"ip link set v{n} master br0 up",
           f"ip -n {n} link set lo up", f"ip -n {n} link set eth0 up", f"ip -n {n} address add 10.9.0.{i + 1}/24 dev eth0")
    return [f"10.9.0.{i + 1}:7000" for i in range(len(names))]


def remove(names):
    """The kernel takes a dead namespace apart in its own time: the links' near ends go now, so that their names are free."""
    for n in names:
        possible(f"ip link del v{n}")
        possible(f"ip netns del {n}")
    possible("ip link del br0")
    possible("ip link del br1")


def inside(name):
    """For a new process, before its program starts."""
    fd = os.open(f"/run/netns/{name}", os.O_RDONLY)

    def enter():
        if libc.setns(fd, CLONE_NEWNET) != 0:
            os._exit(99)
    return enter


def own(p):
    return p.wait_status("its status", lambda s: True)["records"]["own"]


def grows(peers):
    for p in peers:
        before = own(p)
        p.wait_status("more records of its own", lambda s, n=before: s["records"]["own"] > n)


def test_eight_peers_and_a_partition(folder, swarm):
    needs_namespaces()
    names = [f"p{i}" for i in range(PEERS)]
    at = network(names)
    try:
        s = swarm(*RUN)
        peers = []
        for i, n in enumerate(names):
            seeds = [at[j] for j in (0, PEERS // 2) if j < i]
            p = s.peer(n, "--listen", at[i], *(x for a in seeds for x in ("--connect", a)))
            peers.append(p.start(preexec=inside(n)))
        for p in peers:
            p.wait_status("own records, and others'", lambda x: 0 < x["records"]["own"] < x["records"]["folded"])
        half = names[PEERS // 2:]
        sh(*(f"ip link set v{n} master br1" for n in half))
        grows(peers)
        ids = [p.running()["machine_id"][:8] for p in peers]
        wait("no link across the partition", lambda: all(
            not {q["id"][:8] for q in p.running()["peers"] if q["id"] and q["last_seen_s"] < 5} &
            set(ids[PEERS // 2:] if i < PEERS // 2 else ids[:PEERS // 2]) for i, p in enumerate(peers)))
        grows(peers)
        sh(*(f"ip link set v{n} master br0" for n in half))
        held = settle(peers)
        assert held[0]["records"]["folded"] > 0
    finally:
        for p in s.peers if "s" in locals() else []:
            if p.process:
                p.kill()
        remove(names)


def over_bad_links(swarm, spoil):
    """Eight peers; spoil(name) makes a namespace's link bad: all contribute, and in the end all hold the same."""
    needs_namespaces()
    names = [f"p{i}" for i in range(PEERS)]
    at = network(names)
    s = None
    try:
        for n in names:
            spoil(n)
        s = swarm(*RUN)
        peers = []
        for i, n in enumerate(names):
            seeds = [at[j] for j in (0, PEERS // 2) if j < i]
            p = s.peer(n, "--listen", at[i], *(x for a in seeds for x in ("--connect", a)))
            peers.append(p.start(preexec=inside(n)))
        for p in peers:
            p.wait_status("own records, and others'", lambda x: 0 < x["records"]["own"] < x["records"]["folded"])
        grows(peers)
        settle(peers)
    finally:
        for p in s.peers if s else []:
            if p.process:
                p.kill()
        remove(names)


def test_loss_and_a_rate_limit(folder, swarm):
    """What any kernel with nftables can do: every fiftieth packet is lost, 2 Mbit/s go out."""
    def spoil(n):
        rules = "table ip t { chain c { type filter hook input priority 0; iifname eth0 numgen random mod 100 < 2 counter drop; }; }"
        if not possible(f"ip netns exec {n} tc qdisc add dev eth0 root tbf rate 2mbit burst 16k latency 200ms"):
            raise Skip("no netem in this kernel, nor tbf: no rate limit")
        if subprocess.run(["ip", "netns", "exec", n, "nft", rules], capture_output=True, timeout=60).returncode != 0:
            raise Skip("no netem in this kernel, nor random numbers in nftables: no loss")
    if INSIDE in os.environ and not shutil.which("nft"):
        raise Skip("nft is not installed: no NAT between namespaces, no loss")
    over_bad_links(swarm, spoil)


def test_delay_loss_reordering_and_a_rate_limit(folder, swarm):
    def spoil(n):
        if not possible(f"ip netns exec {n} tc qdisc add dev eth0 root netem delay 20ms 10ms reorder 5% loss 2% rate 2mbit"):
            raise Skip("no netem in this kernel: neither delay nor reordering")
    over_bad_links(swarm, spoil)


def test_a_peer_behind_nat(folder, swarm):
    """It only dials out, through a router that rewrites addresses; two such peers meet through the one that listens."""
    needs_namespaces()
    if not shutil.which("nft"):
        raise Skip("nft is not installed: no NAT between namespaces")
    names = ["seed", "nata", "natb"]
    at = network(names)
    homes = ["ina", "inb"]
    s = None
    try:
        for i, (router, n) in enumerate(zip(names[1:], homes)):
            net = f"192.168.{i + 1}"
            sh(f"ip netns add {n}", f"ip link add in0 netns {router} type veth peer name eth0 netns {n}",
               f"ip -n {router} address add {net}.1/24 dev in0", f"ip -n {router} link set in0 up", f"ip -n {n} link set lo up",
               f"ip -n {n} link set eth0 up", f"ip -n {n} address add {net}.2/24 dev eth0", f"ip -n {n} route add default via {net}.1")
            rules = "table ip t { chain c { type nat hook postrouting priority 100; oifname eth0 masquerade; }; }"
            if subprocess.run(["ip", "netns", "exec", router, "sh", "-c", f"echo 1 > /proc/sys/net/ipv4/ip_forward && nft '{rules}'"],
                              capture_output=True, timeout=60).returncode != 0:
                raise Skip("the kernel has no NAT for namespaces")
        s = swarm(*RUN)
        seed = s.peer("seed", "--listen", at[0]).start(preexec=inside("seed"))
        seed.address()
        hidden = [s.peer(n, "--connect", at[0]).start(preexec=inside(n)) for n in homes]
        for p in hidden:
            p.wait_status("own records, and others'", lambda x: 0 < x["records"]["own"] < x["records"]["folded"])
        settle([seed, *hidden])
        routers = {q["address"].split(":")[0] for q in seed.running()["peers"] if q["state"] == "connected"}
        assert routers == {"10.9.0.2", "10.9.0.3"}, routers
    finally:
        for p in s.peers if s else []:
            if p.process:
                p.kill()
        remove(homes + names)


if __name__ == "__main__":
    if INSIDE not in os.environ:
        enter_private()
    sys.exit(main([test_eight_peers_and_a_partition, test_loss_and_a_rate_limit, test_delay_loss_reordering_and_a_rate_limit,
                   test_a_peer_behind_nat]))
