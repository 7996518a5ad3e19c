"""What the 8255x reads and writes in memory: command blocks, receive frame descriptors, counters.

After "Intel 8255x 10/100 Mbps Ethernet Controller Family Open Source Software Developer Manual" (revision 1.3), 6.4.
"""

from __future__ import annotations

from vmklinux.native.descriptor import Descriptor, octets, u8, u16, u32

#: Values of CommandBlock.CMD (6.4.2).
NOP, IA_SETUP, CONFIGURE, MULTICAST_SETUP, TRANSMIT, LOAD_MICROCODE, DUMP, DIAGNOSE = range(8)

#: A link or buffer address that is none.
NOWHERE = 0xFFFF_FFFF

#: What stands behind the counters once they were dumped and reset (6.3.2).
DUMP_RESET_DONE = 0xA007


class CommandBlock(Descriptor):
    """The beginning of every command block (6.4.2)."""

    size = 8
    status, command, link = u16(0), u16(2), u32(4)
    OK, C = status.bit(13), status.bit(15)  # done well; done
    CMD = command.bits(0, 2)
    SF, NC, CID = command.bit(3), command.bit(4), command.bits(8, 12)
    I, S, EL = command.bit(13), command.bit(14), command.bit(15)  # noqa: E741  # the manual's names


class TxCB(CommandBlock):
    """Transmit (6.4.2.5), simplified: the frame follows it."""

    size = 16
    tbd_array = u32(8)
    byte_count, EOF = u16(12).bits(0, 13), u16(12).bit(15)
    threshold, tbd_number = u8(14), u8(15)  # transmission begins when so many 8 bytes are there


class IaSetup(CommandBlock):
    """Individual address setup (6.4.2.2)."""

    size = 16
    address = octets(8, 6)


class MulticastSetup(CommandBlock):
    """Multicast setup (6.4.2.4)."""

    MOST = 64
    size = 12 + MOST * 6
    count, addresses = u16(8).bits(0, 13), octets(10, MOST * 6)  # count: in bytes


class Dump(CommandBlock):
    """Dump of the internal registers (6.4.2.7)."""

    LENGTH = 596
    size = 16
    buffer = u32(8)


class Configure(CommandBlock):
    """Configure (6.4.2.3): the bytes 0 to 21, and those up to 31 that the 82550 has; here 8 bytes further on."""

    size = 8 + 32
    byte_count = u8(8).bits(0, 5)
    rx_fifo_limit, tx_fifo_limit = u8(9).bits(0, 3), u8(9).bits(4, 6)
    adaptive_ifs = u8(10)
    mwi_enable, type_enable, read_al_enable, term_write_cl = (u8(11).bit(number) for number in range(4))
    rx_dma_max = u8(12).bits(0, 6)
    tx_dma_max, dmbc_enable = u8(13).bits(0, 6), u8(13).bit(7)
    late_scb, direct_dma, tno_or_tco, ci_interrupt = (u8(14).bit(number) for number in range(4))
    standard_tcb, standard_counters, save_overrun, save_bad_frames = (
        u8(14).bit(number) for number in range(4, 8)
    )
    discard_short_frames, underrun_retry = u8(15).bit(0), u8(15).bits(1, 2)
    extended_rfd, two_frames_in_fifo, dynamic_tbd = u8(15).bit(5), u8(15).bit(6), u8(15).bit(7)
    mii, csma_disable = u8(16).bit(0), u8(16).bit(7)
    tcp_checksum, link_wake, arp_wake, match_wake = u8(17).bit(0), u8(17).bit(5), u8(17).bit(6), u8(17).bit(7)
    reserved_10, no_source_insertion = u8(18).bits(0, 2), u8(18).bit(3)
    preamble, loopback = u8(18).bits(4, 5), u8(18).bits(6, 7)
    linear_priority = u8(19).bits(0, 2)
    linear_priority_mode, interframe_spacing = u8(20).bit(0), u8(20).bits(4, 7)
    arp_ip_low, arp_ip_high = u8(21), u8(22)
    promiscuous, broadcast_disable, wait_after_win = u8(23).bit(0), u8(23).bit(1), u8(23).bit(2)
    reserved_15_3, ignore_ul, crc16, reserved_15_6 = (u8(23).bit(number) for number in range(3, 7))
    crs_or_cdt = u8(23).bit(7)
    fc_delay = u16(24)
    stripping, padding, rx_crc, long_receive = (u8(26).bit(number) for number in range(4))
    fc_priority_threshold, reserved_18_7 = u8(26).bits(4, 6), u8(26).bit(7)
    ia_match_wake, magic_disable, fc_disable = u8(27).bit(0), u8(27).bit(1), u8(27).bit(2)
    fc_restop, fc_restart, fc_reject = u8(27).bit(3), u8(27).bit(4), u8(27).bit(5)
    force_full_duplex, full_duplex_pin = u8(27).bit(6), u8(27).bit(7)
    reserved_20, fc_priority_byte, multiple_ia = u8(28).bits(0, 4), u8(28).bit(5), u8(28).bit(6)
    reserved_21, multicast_all = u8(29).bits(0, 2), u8(29).bit(3)
    gamla_mode, vlan_drop = u8(30).bit(0), u8(30).bit(1)


class RFD(Descriptor):
    """Receive frame descriptor (6.4.3.1.2), simplified: the frame follows it."""

    size = 16
    status, command, link, reserved = u16(0), u16(2), u32(4), u32(8)
    OK, C = status.bit(13), status.bit(15)
    S, EL = command.bit(14), command.bit(15)
    count, F, EOF = u16(12).bits(0, 13), u16(12).bit(14), u16(12).bit(15)
    room = u16(14)


class SelfTest(Descriptor):
    """What the PORT self test leaves (6.3.3.1): a signature, and 0 when all is well."""

    size = 8
    signature, result = u32(0), u32(4)


class Counters(Descriptor):
    """The statistical counters (6.3.2). Old chips have fewer: ``done`` stands behind the last that there is."""

    size = 84
    tx_good_frames, tx_max_collisions, tx_late_collisions, tx_underruns = u32(0), u32(4), u32(8), u32(12)
    tx_lost_crs, tx_deferred, tx_single_collisions = u32(16), u32(20), u32(24)
    tx_multiple_collisions, tx_total_collisions = u32(28), u32(32)
    rx_good_frames, rx_crc_errors, rx_alignment_errors = u32(36), u32(40), u32(44)
    rx_resource_errors, rx_overrun_errors, rx_cdt_errors, rx_short_frames = u32(48), u32(52), u32(56), u32(60)
    fc_xmt_pause, fc_rcv_pause, fc_rcv_unsupported = u32(64), u32(68), u32(72)
    xmt_tco_frames, rcv_tco_frames = u16(76), u16(78)
