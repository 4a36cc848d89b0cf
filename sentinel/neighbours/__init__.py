"""The machines on the same wire as a VIP: who else answers for it, and who speaks for it in VRRP.

Packets are built and read by hand (``packets``), the kernel throws away what is not for us
(``filters``), and ``wire`` opens the sockets. All of them are AF_PACKET sockets without the link's
own header (SOCK_DGRAM in packet(7)): VLAN tags and the differences of links stay in the kernel, and
no firewall rule of this node, a common cause of two MASTERs, hides a packet from us. They need
CAP_NET_RAW.

To *close* such a socket takes the kernel 8 to 20 ms, a grace period of RCU in which it sleeps. So
they are never closed on the event loop.
"""
