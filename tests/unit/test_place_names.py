"""Which words of a location a geocoder is asked for: what a dispatcher would say the place is."""

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consumer.geocoding.place_names import (
    BUILDINGS,
    COUNTERS,
    HOMES,
    MAX_CHARS,
    NAMES_LIKE_CODES,
    NUMBERED_PLACES,
    PARTS_LIKE_CODES,
    PLACEHOLDERS,
    RELATIONS,
    ROADS,
    TOWNS,
    WORD_RULES,
    Number,
    place_name,
)

NAIROBI = [
    ("GPON-QOA-OLT03-FAT123 Kangemi", "Kangemi"),
    ("GPON-QOA-OLT01-FAT007 Quarry Road, Kariokor", "Quarry Road, Kariokor"),
    ("GPON-PTMP-OLT02-FAT311 Fedha, Phase 3", "Fedha, Phase 3"),
    ("GPON-LAN-OLT08-FAT001 Lang'ata", "Lang'ata"),
    ("GPON-LAN-OLT08-FAT001 South C, Bellevue", "South C, Bellevue"),
    ("GPON-UMO-OLT05-FAT399 Umoja 1", "Umoja 1"),
    ("GPON-UMO-OLT05-FAT399 Umoja Innercore", "Umoja Innercore"),
    ("NBO-FTTH-Mwiki Phase 2", "Mwiki Phase 2"),
    ("NBO-FTTH-Mwiki-Phase-2", "Mwiki Phase 2"),
    ("WSTL-OLT-03-GPON-0/2/11 Rhapta Road", "Rhapta Road"),
    ("KILELESHWA_OLT_01_PON 0/1/3", "KILELESHWA"),
    ("KAREN-OLT-01-FAT-012", "KAREN"),
    ("NBO-OLT-KAREN-FAT-012", "KAREN"),
    ("Kileleshwa Gate 14 - FDT 3", "Kileleshwa Gate 14"),
    ("NRB_WST_001 Westlands", "Westlands"),
    ("NRB_KILIMANI_007", "KILIMANI"),
    ("KE-NBI-0457 - Gigiri", "Gigiri"),
    ("NBO 123 Ngara", "Ngara"),
    ("NBO-14 Riverside Drive", "Riverside Drive"),
    ("Donholm Phase 8 ODF-3", "Donholm Phase 8"),
    ("Donholm 8 / FAT 12", "Donholm 8"),
    ("FAT 12 14 Riverside Drive", "14 Riverside Drive"),
    ("FTTH 14 Riverside", "14 Riverside"),
    ("Githurai 45 MDU-0123", "Githurai 45"),
    ("Githurai 44/45 FAT-3", "Githurai 44/45"),
    ("Kahawa 44 P4", "Kahawa 44"),
    ("Kahawa-44 OLT 2", "Kahawa-44"),
    ("Umoja-1-FAT-12", "Umoja 1"),
    ("UMOJA II FDT 12", "UMOJA II"),
    ("SOUTH_B_OLT_01", "SOUTH B"),
    ("South C-FAT-019", "South C"),
    ("SOUTH C BLK C3", "SOUTH C"),
    ("1st Parklands Avenue ONT HWTC1234ABCD", "1st Parklands Avenue"),
    ("5th Ngong Avenue, 4th Floor", "5th Ngong Avenue"),
    ("Ngong Road P/L 12", "Ngong Road"),
    ("Ngong Rd. MH-33", "Ngong Rd"),
    ("Jogoo Road JB 7", "Jogoo Road"),
    ("Valley Arcade VLAN 203", "Valley Arcade"),
    ("Lavington ONU 48575443A1B2C3D4", "Lavington"),
    ("Lavington 4857544312345678", "Lavington"),
    ("Hurlingham ZTEGC8A1B2C3", "Hurlingham"),
    ("Hurlingham ZTEGC1234567", "Hurlingham"),
    ("Kasarani 0722123456", "Kasarani"),
    ("Kasarani Acc. No. 100234", "Kasarani"),
    ("Kasarani A/C 100234 - Seasons", "Kasarani, Seasons"),
    ("Zimmerman CUST-00045", "Zimmerman"),
    ("Roysambu 10.20.30.40", "Roysambu"),
    ("Roysambu IP 192.168.1.10/24", "Roysambu"),
    ("Roysambu 00:1A:2B:3C:4D:5E", "Roysambu"),
    ("Ruaka (FAT-012/3)", "Ruaka"),
    ("Ruaka (FAT-012/3) Phase 2", "Ruaka Phase 2"),
    ("Ruaka (Two Rivers)", "Ruaka, Two Rivers"),
    ("Thika Road, TRM -", "Thika Road, TRM"),
    ("TRM-OLT-01", "TRM"),
    ("T-Mall POP", "T-Mall"),
    ("OLT 03 T-Mall", "T-Mall"),
    ("NBO-T-MALL-FAT-01", "T-MALL"),
    ("K-Mall FDT 4", "K-Mall"),
    ("ABC Place - SLOT 2 PORT 12", "ABC Place"),
    ("ABC_PLACE_FAT_12", "ABC PLACE"),
    ("Area 25 FAT 2", "Area 25"),
    ("Buru Buru Phase 5 SPLITTER 1:16", "Buru Buru Phase 5"),
    ("BURU__BURU_PHASE_05__FAT_001", "BURU BURU PHASE 05"),
    ("Tena BLK 12", "Tena"),
    ("Tena Block C", "Tena"),
    ("Tena Estate, Blk 12, Hse 4", "Tena Estate"),
    ("House no. 12, Donholm Phase 8", "Donholm Phase 8"),
    ("Donholm Phase 8, House No. 12", "Donholm Phase 8"),
    ("Donholm Phase 8 H/No 12B", "Donholm Phase 8"),
    ("Greenpark Apartments, Apt B4", "Greenpark Apartments"),
    ("Murang'a Town OLT", "Murang'a Town"),
    ("Lang\u2019ata", "Lang'ata"),
    ("Ng'ang'a Close FAT-001", "Ng'ang'a Close"),
    ("Muthaiga North \u2013 FAT 12", "Muthaiga North"),
    ("Kitengela \u2014 EPZ FAT 12", "Kitengela, EPZ"),
    ("JKIA Cargo BTS-0045", "JKIA Cargo"),
    ("KILIMANI01", "KILIMANI"),
    ("KAREN012-FAT-1", "KAREN"),
    ("Komarock Sector 3A FAT 12", "Komarock Sector 3A"),
    ("Zone 4 Tassia NODE 7", "Zone 4 Tassia"),
    ("Kilimani opp. Yaya Centre", "Kilimani, Yaya Centre"),
    ("Kirichwa Rd off Ngong Rd", "Kirichwa Rd, Ngong Rd"),
    ("Off Ngong Road FAT 2", "Ngong Road"),
    ("NGONG-RD-FAT-12", "NGONG RD"),
    ("OLT-01-KWA-NJENGA", "KWA NJENGA"),
    ("HOMA-BAY-OLT-1", "HOMA BAY"),
    ("MOI_AVE_FAT_12", "MOI AVE"),
    ("St. Austin's Road FAT-2", "St. Austin's Road"),
    ("Westlands | ODB 14 | Mpaka Road", "Westlands, Mpaka Road"),
    ("Pipeline;FAT-12;Stage Mpya", "Pipeline, Stage Mpya"),
    ("PARKLANDS/HIGHRIDGE FDB 02", "PARKLANDS/HIGHRIDGE"),
    ("HSE 12 Nyayo Estate Gate B", "Nyayo Estate Gate B"),
    ("Pole 12 Juja Farm", "Juja Farm"),
    ("Kilimani\tFAT 12", "Kilimani"),
    ("Rongai (Maasai Lodge - FAT 3)", "Rongai, Maasai Lodge"),
    ("VOI-OLT-01", "VOI"),
    ("LR No. 209/1234 Upper Hill", "Upper Hill"),
    ("Plot 12, Utawala", "Utawala"),
    ("Plot 209/1234 Utawala", "Utawala"),
    ("OLT Kasarani 02", "Kasarani"),
    ("FAT_KAS_0231_Sunton", "Sunton"),
    ("GPON OLT Ruaraka FAT 23 Alsops", "Ruaraka Alsops"),
    ("Ruaraka OLT 2 PON 3 FAT 14", "Ruaraka"),
    ("Kikuyu Town, Ondiri - FDT02/FAT05", "Kikuyu Town, Ondiri"),
    ("Syokimau-Katani Road MH12", "Syokimau-Katani Road"),
    ("NBO-SYK-OLT01-F0/S2/P11 Syokimau Gateway Mall", "Syokimau Gateway Mall"),
    ("KBU-RUIRU-BYPASS-FAT-0091", "RUIRU BYPASS"),
    ("EAST_FM_OLT_2_KAYOLE_SABASABA", "EAST KAYOLE SABASABA"),
    ("OLT-RONGAI-2/0/3 Tuskys", "RONGAI Tuskys"),
    ("Westlands OLT 1/1/4:23", "Westlands"),
    ("Sarit Centre 3rd Floor", "Sarit Centre"),
    ("THE HUB, KAREN ODF 2", "THE HUB, KAREN"),
    ("Two Rivers Mall POP", "Two Rivers Mall"),
    ("Prism Tower BTS", "Prism Tower"),
    ("Kenya Re Towers ODF", "Kenya Re Towers"),
    ("GTC Mall MDU 003", "GTC Mall"),
    ("USIU Road FAT12", "USIU Road"),
    ("UN Avenue Gigiri (NBO-GIG-004)", "UN Avenue Gigiri"),
    ("Kiambu Road - Thindigua, FDB 8", "Kiambu Road, Thindigua"),
    ("Kamiti Rd/Zimmerman Base FAT 3", "Kamiti Rd/Zimmerman Base"),
    ("Athi River KMC 012", "Athi River KMC"),
    ("Jamhuri II Estate MDU_88", "Jamhuri II Estate"),
    ("Kibera 42 FAT 9", "Kibera 42"),
    ("Dandora Phase 4, FAT-4", "Dandora Phase 4"),
    ("Mathare 4A SPL-3", "Mathare 4A"),
    ("Bahati Blk D12", "Bahati"),
    ("NAIROBI WEST_OLT_1", "NAIROBI WEST"),
    ("South B - Golden Gate (BLK C3)", "South B, Golden Gate"),
    ("South B, Plainsview, Hse No 45", "South B, Plainsview"),
    ("Imara Daima, Villa Franca, House 12B", "Imara Daima, Villa Franca"),
    ("Fedha Est Gate C FAT 19", "Fedha Est Gate C"),
    ("Pioneer Estate Sn: HWTC8F0A1B2C", "Pioneer Estate"),
    ("Cust 0045122 - Kilimani - Wood Avenue", "Kilimani, Wood Avenue"),
    ("Wood Ave Plaza, 2nd Floor, Office 4", "Wood Ave Plaza, Office 4"),
    ("Rose Avenue Apt 5C", "Rose Avenue"),
    ("Yaya Towers Rm 402", "Yaya Towers"),
    ("FDT 02 - FAT 04 - Baba Dogo", "Baba Dogo"),
    ("fat 12 lucky summer", "lucky summer"),
    ("nbo-olt-02 pangani", "pangani"),
    ("Ngara___FAT___3", "Ngara"),
    ("Ngara - - FAT 3 -", "Ngara"),
    ("Ngara ( FAT 3 / FAT 4 )", "Ngara"),
    ("Ngara [POP]", "Ngara"),
    ("CBD-OLT-04 Moi Avenue", "CBD Moi Avenue"),
    ("Kenol SITE-0031", "Kenol"),
    ("Jacaranda Gardens Block 12 Flat 3", "Jacaranda Gardens"),
    ("Greatwall Gardens Ph 2 Blk 7", "Greatwall Gardens Ph 2"),
    ("Ruai Bypass KM 3 FAT 9", "Ruai Bypass KM 3"),
    ("Kangundo Road 4G BTS", "Kangundo Road"),
    ("Kayole 01", "Kayole"),
    ("Juja, Highpoint OLT-1-1-2", "Juja, Highpoint"),
    ("Highrise Estate T4", "Highrise Estate"),
    ("Mirema Drive - House 4 Mirema Court", "Mirema Drive, Mirema Court"),
    ("Roysambu 1:32", "Roysambu"),
    ("VLAN 100 Zone 4 Kasarani", "Zone 4 Kasarani"),
    ("OLT-3-PORT-4-ONU-12 Hunters", "Hunters"),
    ("CID:88213 Garden Estate", "Garden Estate"),
    ("Quarry Rd MDU B-12", "Quarry Rd"),
    ("NRB-EAST-EASTLEIGH-SEC-1-OLT", "EAST EASTLEIGH SEC 1"),
    # rule by rule, where a rule is easily taken for its neighbour
    ("Kangemi FAT-3 (12)", "Kangemi"),
    ("Kangemi (B)", "Kangemi"),
    ("PORT12 Kangemi", "Kangemi"),
    ("Donholm House No 12", "Donholm"),
    ("Kangemi FTTH No 12", "Kangemi"),
    ("FTTH-14 Kangemi", "Kangemi"),
    ("FAT-12-A-3 Kangemi", "Kangemi"),
    ("OLT B-Lounge", "B-Lounge"),
    ("OLT T Mall", "T Mall"),
    ("FAT K1 Parklands", "K1 Parklands"),
    ("FAT 1st Parklands Avenue", "1st Parklands Avenue"),
    ("FAT Umoja1", "Umoja1"),
    ("Kangemi OLT, 14 Riverside", "Kangemi, 14 Riverside"),
    ("Huruma 1/16", "Huruma"),
    ("Kilimani-316", "Kilimani"),
    ("FAT 3 - 44/45 Kangemi", "Kangemi"),
    ("Greatwall Gardens PH8 FAT 2", "Greatwall Gardens PH8"),
    ("Kilimani opp.14 Riverside", "Kilimani, 14 Riverside"),
    ("NBO-WST-12 Kangemi", "Kangemi"),
    ("GPON-QOA Kangemi", "Kangemi"),
    ("XYZ-12 Kangemi", "Kangemi"),
    ("FAT 2 - 1st Avenue", "1st Avenue"),
    ("Wanjiku\u0303 Hostel", "Wanjik\u0169 Hostel"),
    ("Roysambu ac:de:48:ef:ab:12", "Roysambu"),
    ("Kangemi H/NO12", "Kangemi"),
    ("Kangemi, " * 12 + "MSA Superhighway", ", ".join(["Kangemi"] * 12)),
    ("L.R. No. 209/1234 Parklands", "Parklands"),
    ("Parklands L.R No 209/1234", "Parklands"),
    ("L/R 209/1234, Parklands", "Parklands"),
    ("P.O. Box 1234 Kangemi", "Kangemi"),
    ("PO Box 1234-00100 Kangemi", "Kangemi"),
    ("Kangemi, P.O BOX 12", "Kangemi"),
    ("ENODEB 1234 Kangemi", "Kangemi"),
    ("Kangemi eNodeB", "Kangemi"),
    ("CTO 12 Kangemi", "Kangemi"),
    ("Kangemi NAP-3/8", "Kangemi"),
    ("Switch 4 Kangemi", "Kangemi"),
    ("Kangemi AP 12", "Kangemi"),
    ("PPPoE Kangemi", "Kangemi"),
    ("Kangemi PPPoE 100234", "Kangemi"),
    ("Mikrotik CCR1009-7G-1C-1S+ Kangemi", "Kangemi"),
    ("Kangemi MikroTik CCR 1036", "Kangemi"),
    ("Huawei MA5800-X7 Kangemi", "Kangemi"),
    ("Kangemi - Huawei EG8145V5", "Kangemi"),
    ("Kangemi, ZTE OLT 3", "Kangemi"),
    ("ZTE, OLT 3, Kangemi", "ZTE, Kangemi"),
    ("Huawei near Kangemi", "Huawei, Kangemi"),
    ("Cisco Huawei 12 Kangemi", "Cisco Kangemi"),
    ("GPON-MA-OLT03 Kangemi", "Kangemi"),
    ("Sunrise Apts B-12, Kilimani", "Sunrise Apts, Kilimani"),
    ("Sunrise Apartments C-3/4 Kilimani", "Sunrise Apartments Kilimani"),
    ("Sunrise Flats B 12, Kilimani", "Sunrise Flats B 12, Kilimani"),
    ("South B-12", "South B-12"),
    ("Kilimani next to Yaya Centre", "Kilimani, Yaya Centre"),
    ("Next  to Yaya Centre", "Yaya Centre"),
    ("FAT-12 Msa-Malindi Rd", "Msa-Malindi Rd"),
    ("MSA-OLT-02 NBO-MSA Highway", "NBO-MSA Highway"),
    ("NBO-Ngong Rd", "Ngong Rd"),
    ("MSA-MALINDI-RD-FAT-12", "MALINDI RD"),
    ("null, Kangemi", "Kangemi"),
    ("Kangemi, Unknown", "Kangemi"),
    ("Kangemi - N/A", "Kangemi"),
    ("Test Road, Kangemi", "Test Road, Kangemi"),
    ("https://maps.app.goo.gl/AbCd12 Kangemi", "Kangemi"),
    ("Kangemi (https://www.google.com/maps?q=-1.26,36.74)", "Kangemi"),
    ("Kangemi goo.gl/maps/AbCd", "Kangemi"),
    ("Kangemi www.example.co.ke", "Kangemi"),
]

MOMBASA = [
    ("MSA ROAD OLT 2", "MSA ROAD"),
    ("MSA Rd - City Cabanas FAT 7", "MSA Rd, City Cabanas"),
    ("MSA-NYALI-OLT-02", "NYALI"),
    ("MSA_BAMBURI_MTAMBO_FAT_09", "BAMBURI MTAMBO"),
    ("Msa Rd, Imara Daima FAT 33", "Msa Rd, Imara Daima"),
    ("MSA-Likoni-POP-1", "Likoni"),
    ("MSA-OLT-02 Mtwapa, Port 12", "Mtwapa"),
    ("Port Reitz MSA-FDT-04", "Port Reitz"),
    ("Tudor Four FDB-11 (MSA-OLT-04)", "Tudor Four"),
    ("Mombasa - Nyali Links Rd, City Mall", "Mombasa, Nyali Links Rd, City Mall"),
    ("Bombolulu, Links Rd. JB-04", "Bombolulu, Links Rd"),
    ("Mtwapa (MSA-MTW-002)", "Mtwapa"),
    ("Ganjoni MSA-012-FAT-4", "Ganjoni"),
    ("Kizingo MSA FDT 4", "Kizingo"),
]

KISUMU = [
    ("KSM-OLT01-FAT022 Milimani", "Milimani"),
    ("KSM_KONDELE_FDT_03", "KONDELE"),
    ("Mamboleo Junction (KSM-FAT-017)", "Mamboleo Junction"),
    ("Kisumu Ndogo - FAT 12", "Kisumu Ndogo"),
    ("Nyalenda B KSM-FDT-3", "Nyalenda B"),
    ("Lolwe Estate KSM_OLT_1_FAT_33", "Lolwe Estate"),
]

NAKURU = [
    ("NKR-FAT-044 Section 58", "Section 58"),
    ("NKU_LANET_OLT02_FAT_110", "LANET"),
    ("Nakuru - Milimani, SPL 1:8", "Nakuru, Milimani"),
    ("Milimani Rd, Nakuru, P/L 33", "Milimani Rd, Nakuru"),
    ("Naka Estate (NKU-FAT-12/8)", "Naka Estate"),
    ("Pipeline Nakuru S2", "Pipeline Nakuru"),
]

ELDORET = [
    ("ELD-POP-01 Elgon View", "Elgon View"),
    ("ELD_LANGAS_PHASE_2_FAT_3", "LANGAS PHASE 2"),
    ("Eldoret Kapsoya S1-S2", "Eldoret Kapsoya"),
    ("Huruma, Eldoret SPL 1/16", "Huruma, Eldoret"),
    ("West Indies Eldoret ELD-OLT-1", "West Indies Eldoret"),
    ("Annex - Eldoret, ONT ZTEGC1A2B3C4", "Annex, Eldoret"),
    ("Elgon View Phase II ELD_FDT_2", "Elgon View Phase II"),
]

NAMES = [
    # as they are in the field, with no code around them
    "Bruce House 4",
    "Umoja1",
    "Phase2 Fedha",
    "A104 Road, Kikuyu",
    "Kayole 1B",
    "MUGUMU-INI",
    "MARINGO/HAMZA",
    "DANDORA AREA IV",
    "HOSPITAL",
    "Nyayo Estate Embakasi Court 12",
    "Karen C",
    "KCB Towers",
    "XYZ Towers",
    "Voi",
    "M. Kamau Road",
    "Embakasi Nyayo Est. Court 305",
    "The Hub Karen",
    "Delta Corner Tower 2",
    "I&M Bank Tower",
    "Mlolongo Phase 3 Sabaki",
    "Nairobi West",
    "Manyatta A, Kisumu",
    "Free Area, Nakuru",
    "Kindaruma Rd 16",
    "Section 58",
    "Area 25",
    "CBD",
    "NHC LANGATA PHASE 5",
    "Site and Service, Dandora",
    "Block Hotels HQ",
    "Great Wall 3",
    "Wanjikũ Hostel JKUAT Gate C",
    "Gate C JKUAT",
    "K1 Parklands",
    "Oloitoktok Rd",
    "Ol-Kalou",
    "Old Mutual Tower",
    "Msa-Malindi Rd",
    "ELD-ITEN ROAD",
    "AP Camp",
    "Switch TV Studios",
    "Huawei Offices",
    "Sunrise Apts",
    "Google Offices",
    "Testimony Church",
    "Nonesuch",
    # wards of Nairobi, some of which look like codes, and constituencies
    "BABA DOGO",
    "CALIFORNIA",
    "CLAY CITY",
    "DANDORA AREA I",
    "EASTLEIGH NORTH",
    "HARAMBEE",
    "IMARA DAIMA",
    "KAHAWA WEST",
    "KARIOBANGI SOUTH",
    "KAYOLE CENTRAL",
    "KWA NJENGA",
    "KWA REUBEN",
    "LAINI SABA",
    "LOWER SAVANNAH",
    "LUCKY SUMMER",
    "MATOPENI/SPRING VALLEY",
    "MLANGO KUBWA",
    "MUTU-INI",
    "NAIROBI CENTRAL",
    "NYAYO HIGHRISE",
    "PIPELINE",
    "SOUTH C",
    "UMOJA I",
    "UMOJA II",
    "WOODLEY/KENYATTA GOLF COURSE",
]

NOWHERE = [
    "Phase2",
    "2nd",
    "Gate 2nd",
    "A104 Road",
    "WSTL-OLT-03-GPON-0/2/11",
    "NRB_WST_001",
    "KE-NBI-0457",
    "NBO-123",
    "Zone 4",
    "Phase 2",
    "Gate 14",
    "Phase II",
    "House No. 12",
    "PORT 12",
    "Block C",
    "QOA",
    "PTMP",
    "NBO",
    "WST",
    "FAT",
    "FAT-012",
    "FAT A",
    "MDU-0123",
    "0/1/3",
    "1:8",
    "HWTC1234ABCD",
    "S1-S2",
    "(FAT 3)",
    "INC0012345",
    "12",
    "Road",
    "-",
    "",
    "XYZ-12",
    "KGM-QOA-OLT-2",
    "nbo-wst-001",
    "___",
    "()()",
    "unknown",
    "Unknown",
    "Unknown location",
    "null",
    "NULL",
    "None",
    "none, none",
    "Test",
    "test 1",
    "TBD",
    "N/A",
    "unknown FAT 12",
    "FAT 12 - null",
    "https://maps.google.com/?q=-1.2921,36.8219",
    "http://goo.gl/maps/AbCd",
    "maps.google.com/?q=Kangemi",
    "-1.2921, 36.8219",
    "P.O. Box 1234",
    "L.R. No. 209/1234",
    "Huawei MA5800-X7",
    "Huawei",
    "PPPoE",
    "HWTCAAAAA000",
    "HWTCABADCAFE",
]
RULED = sorted(word for rule in WORD_RULES for word in rule.words)
LINKS = {
    Number.TAKEN: (" {}", "-{:02}", "_{:03}", "{:02}", " No. {}"),
    Number.LONG: (" 4{:02}", "-{:02}", "_{:03}", "{:02}", " No. {}"),
    Number.NEEDED: (" {}", "-{:02}", "_{:03}", "{:02}", " No. {}"),
    Number.FIRST: ("{:02}", " No. {}"),
    Number.MODEL: (" {}", "-{:02}", " MA58{:02}", " MA5800-X{}", " OLT {}", " No. {}"),
}


@st.composite
def numbered_words(draw: st.DrawFn) -> str:
    rule = draw(st.sampled_from(WORD_RULES))
    word = draw(st.sampled_from(sorted(rule.words)))
    return word + draw(st.sampled_from(LINKS[rule.number])).format(draw(st.integers(0, 99)))


codes = st.one_of(
    numbered_words(),
    st.from_regex(r"GPON-(QOA|KAS|WSTL|LAN)-OLT0[1-8]-FAT[0-9]{3}", fullmatch=True),
    st.from_regex(r"(NBO|NRB|KE|MSA|KSM)[-_](WST|NBI|QOA|KGM)[-_]0[0-9]{2,3}", fullmatch=True),
    st.from_regex(r"WSTL-OLT-0[1-9]-GPON-[0-9]/[0-9]{1,2}/[0-9]{1,2}", fullmatch=True),
    st.from_regex(r"(PON|SPL|GPON) [01][/:](2|4|8|16|32|64)", fullmatch=True),
    st.from_regex(r"HWTC[0-9A-F]{8}|ZTEGC[0-9]{7}|48575443[0-9A-F]{8}|07[0-9]{8}", fullmatch=True),
    st.from_regex(r"S[1-8]-S[1-8]|P[1-9]|BL[KD] [A-D][1-9]?|MDU-[0-9]{4}|(MH|JB)-[0-9]{2}", fullmatch=True),
    st.from_regex(r"10\.[0-9]{1,2}\.[0-9]{1,3}\.[0-9]{1,3}(/[0-9]{2})?", fullmatch=True),
)
before = st.sampled_from([" ", " - ", ", ", ": ", " | "])
behind = st.sampled_from([" ", " - ", ", ", " | ", " (", "; "])


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+|[0-9]+", unicodedata.normalize("NFC", text))


@pytest.mark.parametrize(("location", "place"), [*NAIROBI, *MOMBASA, *KISUMU, *NAKURU, *ELDORET])
def test_the_words_that_name_the_place_remain(location: str, place: str) -> None:
    assert place_name(location) == place


@pytest.mark.parametrize("name", NAMES)
def test_a_name_without_codes_is_left_as_it_is(name: str) -> None:
    assert place_name(name) == name


@pytest.mark.parametrize("location", NOWHERE)
def test_a_location_that_names_no_place_is_not_asked_for(location: str) -> None:
    assert place_name(location) is None


@pytest.mark.parametrize("word", RULED)
def test_every_ruled_word_goes_with_its_number_and_alone_names_nothing(word: str) -> None:
    for number in ("-07", " 312", "", " No. 0312"):
        assert place_name(f"{word}{number}") is None
    for number in ("-07", " 312", " No. 0312"):
        assert place_name(f"{word}{number} Kangemi") == "Kangemi"
        assert place_name(f"Kangemi, {word.lower()}{number}") == "Kangemi"


LISTED = [
    *((f"Kilimani {word} Yaya Centre", "Kilimani, Yaya Centre") for word in RELATIONS),
    *((f"FTTH {word} 12 Kangemi", "Kangemi") for word in COUNTERS),
    *((f"Tassia {word} 02", f"Tassia {word} 02") for word in NUMBERED_PLACES),
    *((f"Sunrise {word} B-12", f"Sunrise {word}") for word in HOMES),
    *((f"Kangemi, {word.title()}", "Kangemi") for word in PLACEHOLDERS),
    *((word.lower(), None) for word in PLACEHOLDERS),
    *((f"Ksm-{word.title()} Rd", f"Ksm-{word.title()} Rd") for word in TOWNS),
    *((f"A104 {word}, Kikuyu", f"A104 {word}, Kikuyu") for word in ROADS),
    *((f"XYZ {word}", f"XYZ {word}") for word in BUILDINGS),
    *((f"{word}-OLT-01", word) for word in NAMES_LIKE_CODES),
    *((f"NGONG-{word}-FAT-12", f"NGONG {word}") for word in PARTS_LIKE_CODES),
    *((word.title(), None) for word in PARTS_LIKE_CODES | BUILDINGS),
]


@pytest.mark.parametrize(("location", "place"), sorted(LISTED, key=str))
def test_every_listed_word_is_needed(location: str, place: str | None) -> None:
    assert place_name(location) == place


@given(st.sampled_from(NAMES), st.lists(codes, max_size=3), st.lists(codes, max_size=3), before, behind)
def test_a_name_among_any_codes_comes_back_as_itself(
    name: str, first: list[str], last: list[str], before: str, behind: str
) -> None:
    location = "".join(code + before for code in first) + name + "".join(behind + code for code in last)
    assert place_name(location) == name


@given(st.lists(codes, min_size=1, max_size=5), before)
def test_codes_alone_name_nothing(several: list[str], between: str) -> None:
    assert place_name(between.join(several)) is None


anything = st.one_of(
    st.text(max_size=200),
    st.lists(
        st.one_of(codes, st.sampled_from(NAMES), st.text("aAbK01' -_/.,:;()&#|\n\u0300\u00df\u2019", max_size=6)),
        max_size=12,
    ).map("".join),
    st.lists(st.sampled_from([*RULED, *NAMES, "1", "02", "B", "No", "-", "/", ", "]), max_size=40).map(" ".join),
)


@given(anything)
@example("A / C Kangemi")
@example("St.Mary & Sons" + " Kangemi" * 40)
@example("\ud800 \x00 Kangemi")
def test_what_is_asked_is_short_and_asked_again_the_same(location: str) -> None:
    place = place_name(location)
    if place is not None:
        assert place == place.strip()
        assert re.search(r"[^\W\d_]", place)
        assert len(place) <= MAX_CHARS
        assert place_name(place) == place


@given(anything)
def test_no_word_is_made_up_or_moved(location: str) -> None:
    given_words = iter(words_of(location))
    assert all(word in given_words for word in words_of(place_name(location) or ""))


def test_a_long_location_ends_with_a_whole_word() -> None:
    place = place_name("FAT-012 " + "Mountain View, " * 20)
    assert place is not None
    assert MAX_CHARS - len(", Mountain") < len(place) <= MAX_CHARS
    assert set(place.split(", ")) <= {"Mountain View", "Mountain"}
    assert place_name("K" * 300) is None


@pytest.mark.timeout(40)
@pytest.mark.parametrize(
    "unit",
    [
        "Kilimani FAT 12, ", "1/", "A-", "T ", "PORT NO ", "HOUSE ", "FAT-", "QOA-", "00:", "a'", "a\u0300", "a''''",
        "-", "(", "x", "1", "HUAWEI ", "HUAWEI OLT ", "next ", "www.", "http", "goo.", "l.", "Apts B-1 ", "null, ",
    ],
)  # fmt: skip
def test_a_long_location_is_no_bomb(unit: str) -> None:
    """A rule that looked at each pair of them, or worse, would not end within the time that a test has."""
    name = place_name(unit * (300_000 // len(unit)))
    assert name is None or len(name) <= MAX_CHARS
